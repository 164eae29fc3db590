-- How long should step 1 take? From not at all to twice what the pipeline has.

local base = pipeline(args.pipeline or "quickstart.yaml")
local key = "stages.pretrain.epochs"
local epochs = base:get(key)

local study = ablation("pretraining_length")
study:arm("0 epochs", base:with("stages.pretrain.enabled", false))
for _, share in ipairs(args.shares or {0.5, 1, 2}) do
  local n = math.ceil(share * epochs)
  study:arm(n .. " epochs", base:with(key, n))
end
study:seeds(args.seeds or 3)

study:run()
study:report()
