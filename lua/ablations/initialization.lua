-- Drawn weights against learned ones. Every arm but the last trains step 2 alone, from weights of
-- another distribution; the last one starts from what step 1 has learned.

local base = pipeline(args.pipeline or "quickstart.yaml")
local drawn = base:with("stages.pretrain.enabled", false)
local key = "stages.segment.initialize"

local study = ablation("initialization")
study:arm("as the model says", drawn)
study:arm("Xavier", drawn:with(key, "xavier_uniform"))
study:arm("Kaiming", drawn:with(key, "kaiming_normal"))
study:arm("truncated normal", drawn:with(key, {truncated_normal = {std = 0.02}}))
study:arm("LSUV", drawn:with(key, "lsuv"))
study:arm("learned", base)
study:seeds(args.seeds or 3)

study:run()
study:report()
