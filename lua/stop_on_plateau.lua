-- Ends a stage when a metric has not improved for a while.
--
--   on_epoch_end: {lua: stop_on_plateau}
--
-- To watch something else, copy this file beside the pipeline file and change these.

local metric = "validation.dice" -- epochs in which it was not measured are passed over
local patience = 10 -- times in a row it may fail to improve
local margin = 0 -- what counts as an improvement
local sign = 1 -- -1 when lower is better, as for a loss

return function(event)
  local value = event.metrics[metric]
  if not value then return end

  local state = event.state -- kept between epochs, and when the run is resumed
  if not state.best or sign * value > sign * state.best + margin then
    state.best, state.epoch, state.misses = value, event.epoch, 0
    return
  end
  state.misses = state.misses + 1
  if state.misses >= patience then
    event.stop(string.format("%s has not improved on %.4g since epoch %d", metric, state.best,
                             state.epoch))
  end
end
