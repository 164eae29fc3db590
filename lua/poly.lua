-- Polynomial decay: the full value at the start, zero at the end.
--
--   schedule: {lua: poly, power: 0.9}
--
-- power  1 is a straight line (default 0.9)

local power = args.power or 0.9

return function(step, epoch, total, base)
  return base * (1 - step / total) ^ power
end
