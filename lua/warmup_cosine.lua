-- Linear warm-up, then half a cosine down.
--
--   schedule: {lua: warmup_cosine, warmup: 50}
--
-- warmup  epochs until the full value is reached (default 0; may be a fraction)
-- final   where the cosine ends, as a fraction of the full value (default 0)

local warmup = args.warmup or 0
local final = args.final or 0
assert(warmup >= 0, "warmup is a number of epochs and must not be negative")

return function(step, epoch, total, base, steps_per_epoch)
  local warmup_steps = math.min(math.ceil(warmup * steps_per_epoch), total)
  if step < warmup_steps then
    return base * (step + 1) / warmup_steps -- the first step is a small one, not none
  end
  local done = (step - warmup_steps) / (total - warmup_steps) -- 0 to 1
  return base * (final + (1 - final) * (1 + math.cos(math.pi * done)) / 2)
end
