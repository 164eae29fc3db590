-- Into how many slabs is the crop cut? Their number has to divide the tokens along the cut, so the
-- crop is `length` voxels long in that direction, whatever the pipeline has: 64 are 4 tokens of 16.

local base = pipeline(args.pipeline or "quickstart.yaml")
local axis = base:get("stages.pretrain.graph.shuffled.axis")
local index = {x = 0, y = 1, z = 2}
local long = base:with("params.roi." .. index[axis], args.length or 64)

local study = ablation("slabs")
study:vary(long, "slabs", "params.slabs", args.slabs or {2, 4})
study:seeds(args.seeds or 3)

study:run()
study:report()
