-- How large are the patches that step 1 hides? (Voxels along each side; they divide the crop.)

local base = pipeline(args.pipeline or "quickstart.yaml")
local key = "stages.pretrain.graph.masked.size"

local study = ablation("mask_patch_size")
study:vary(base, "mask patch", key, args.sizes or {4, 8, 16})
study:baseline("mask patch " .. base:get(key)) -- what the pipeline has
study:seeds(args.seeds or 3)

study:run()
study:report()
