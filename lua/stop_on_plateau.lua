-- Ends a stage when a metric has not improved for a while.
--
--   on_epoch_end: {lua: stop_on_plateau, metric: validation.dice, patience: 10}
--
-- metric    what to watch (default validation.dice); epochs in which it was not measured are passed over
-- patience  times in a row it may fail to improve (default 10)
-- margin    what counts as an improvement (default 0)
-- lower     true when lower is better, as for a loss

local metric = args.metric or "validation.dice"
local patience = args.patience or 10
local margin = args.margin or 0
local sign = args.lower and -1 or 1

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
