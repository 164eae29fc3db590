-- Is step 1 worth more where labels are few? It sees all training images, step 2 only those whose
-- label is kept. Each fraction is compared with itself without step 1.

local base = pipeline(args.pipeline or "quickstart.yaml")

local study = ablation("label_fraction")
study:grid(base, {
  {"labels", "data.label_fraction", args.fractions or {0.1, 0.4, 1}},
  {"step 1", {{"without", {["stages.pretrain.enabled"] = false}}, {"with"}}},
})
study:baseline({["step 1"] = "without"})
study:seeds(args.seeds or 3)

study:run()
study:report()
