-- Does a network learn as well when the factors of its products are rounded to bf16? Both stages in
-- f32 against both in bf16, the same seeds.

local base = pipeline(args.pipeline or "quickstart.yaml")

local study = ablation("precision")
study:vary(base, "precision", {
  {"f32"},
  {"bf16", {["stages.pretrain.precision"] = "bf16", ["stages.segment.precision"] = "bf16"}},
})
study:seeds(args.seeds or 3)

study:run()
study:report()
