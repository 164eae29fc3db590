-- A straight line from one value to another: of a mask ratio, of a loss weight.
--
--   schedules: {masked.ratio: {lua: ramp, from: 0.2, to: 0.6, epochs: 100}}
--
-- from, to  the values at the start and at the end (default: to is the value in the file)
-- epochs    how long it takes (default: the whole stage); after it the value stays

local from = args.from or 0
local to = args.to
local epochs = args.epochs

return function(step, epoch, total, base, steps_per_epoch)
  local steps = epochs and epochs * steps_per_epoch or total
  return from + ((to or base) - from) * math.min(step / steps, 1)
end
