-- A value that follows a metric: mask more as the order of the slabs is recognized better, weigh a
-- loss less as it falls. It moves in a straight line between two values of the metric and stays
-- beyond them.
--
--   schedules: {masked.ratio: {lua: by_metric, metric: structure.accuracy, from: 0.5, to: 0.9,
--                              value: 0.7}}
--
-- metric  what was measured in the epoch before; until there is one, the value is the file's
-- from    the metric at which the value is still that in the file
-- to      the metric at which it is `value`

local metric = args.metric
local from, to = args.from, args.to
local value = args.value
assert(metric and from and to and value, "by_metric needs metric, from, to and value")
assert(from ~= to, "from and to are two values of the metric")

return function(step, epoch, total, base, steps_per_epoch, metrics)
  local measured = metrics[metric]
  if not measured then return base end
  local part = math.max(0, math.min((measured - from) / (to - from), 1))
  return base + (value - base) * part
end
