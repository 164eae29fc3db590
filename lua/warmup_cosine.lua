-- Linear warm-up, then half a cosine down.
--
--   schedule: {lua: warmup_cosine, warmup: 50}
--
-- warmup  epochs until the full value is reached (default 0; may be a fraction)
-- final   where the cosine ends, as a fraction of the full value (default 0)
-- hold    epochs for which a value is held, each time counting as one epoch of warm-up and cosine, from
--         0 on: what becomes of a schedule that is stepped at every hold-th epoch only
--         (default 0: it moves at every step)

local warmup = args.warmup or 0
local final = args.final or 0
local hold = args.hold or 0
assert(warmup >= 0, "warmup is a number of epochs and must not be negative")
assert(hold == 0 or hold >= 1, "hold is a number of epochs, 1 or more; 0 is none")

local function fall(base, done) -- from 0 to 1
  return base * (final + (1 - final) * (1 + math.cos(math.pi * done)) / 2)
end

return function(step, epoch, total, base, steps_per_epoch)
  if hold > 0 then
    local times, epochs = epoch // hold, total / steps_per_epoch
    if times < warmup then return base * times / math.max(warmup - 1, 1) end
    return fall(base, (times - warmup) / math.max(epochs - warmup, 1))
  end
  local warmup_steps = math.min(math.ceil(warmup * steps_per_epoch), total)
  if step < warmup_steps then
    return base * (step + 1) / warmup_steps -- the first step is a small one, not none
  end
  return fall(base, (step - warmup_steps) / (total - warmup_steps))
end
