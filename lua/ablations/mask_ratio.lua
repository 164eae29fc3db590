-- How much of the crop does step 1 have to hide?

local base = pipeline(args.pipeline or "quickstart.yaml")
local key = "stages.pretrain.graph.masked.ratio"

local study = ablation("mask_ratio")
study:vary(base, "mask ratio", key, args.ratios or {0.2, 0.4, 0.6, 0.8})
study:baseline("mask ratio " .. base:get(key)) -- what the pipeline has
study:seeds(args.seeds or 3)

study:run()
study:report()
