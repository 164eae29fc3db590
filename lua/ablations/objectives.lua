-- Which of step 1's two objectives helps: restoring what is masked, telling the order of the slabs,
-- or both?

local base = pipeline(args.pipeline or "quickstart.yaml")
local objective = "stages.pretrain.graph.loss."

local study = ablation("objectives")
study:vary(base, "objectives", {
  {"none", {["stages.pretrain.enabled"] = false}},
  {"reconstruction", {[objective .. "structure.when"] = false}},
  -- Nothing then trains the decoder, so step 2 starts it afresh.
  {"order", {[objective .. "context.when"] = false, ["stages.segment.init.missing"] = "fresh"}},
  {"both"},
})
study:baseline("objectives none")
study:seeds(args.seeds or 3)

study:run()
study:report()
