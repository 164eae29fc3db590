-- What is step 1 worth? Every weight learned from labels alone, against weights that learned from
-- the images first.

local base = pipeline(args.pipeline or "quickstart.yaml")

local study = ablation("with_without_pretraining")
study:arm("step 2 only", base:with("stages.pretrain.enabled", false))
study:arm("step 1 + 2", base)
study:seeds(args.seeds or 3)

study:run()
study:report()
