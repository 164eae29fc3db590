-- The last value of everything that was measured, when a stage has ended.
--
--   on_stage_end: {lua: summary, only: validation}
--
-- only  names that begin with this (default: all)

local only = args.only or ""

return function(event)
  event.log(string.format("ended (%s) after epoch %d, step %d", event.reason, event.epoch + 1,
                          event.step))
  for name, value in pairs(event.metrics) do
    if name:sub(1, #only) == only then event.log(string.format("  %s = %.4g", name, value)) end
  end
end
