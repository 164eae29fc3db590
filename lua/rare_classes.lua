-- Draws cases with rare classes more often: the weight is 1, and `more` for every class of which the
-- case has at least `volume` and that is smaller than `rare` of the case's foreground.
--
--   case_weights: {lua: rare_classes, more: 2, rare: 0.05}
--
-- more    added for each rare class (default 1)
-- rare    share of the foreground below which a class is rare (default 0.1)
-- volume  in mm³ (default 0: a voxel will do)

local more = args.more or 1
local rare = args.rare or 0.1
local volume = args.volume or 0

return function(case)
  local foreground = 0
  for _, class in ipairs(case.classes) do foreground = foreground + class.voxels end
  local weight = 1
  for _, class in ipairs(case.classes) do
    local there = class.voxels > 0 and class.voxels * case.voxel_mm3 >= volume
    if there and class.voxels < rare * foreground then weight = weight + more end
  end
  return weight
end
