-- F-beta of a class: beta above 1 weighs missed voxels more than made-up ones; 1 is Dice.
--
--   evaluate: {metrics: [dice, {lua: fbeta, beta: 2, name: f2}]}
--
-- beta  default 2

local b2 = (args.beta or 2) ^ 2

return function(counts)
  local all = (1 + b2) * counts.tp + b2 * counts.fn + counts.fp
  if all == 0 then return nil end -- the class is nowhere: nothing to measure
  return (1 + b2) * counts.tp / all
end
