-- A line with the Dice of every class after each validation, worst first, and how each has changed.
--
--   on_validation: {lua: log_classes, worst: 5}
--
-- worst  how many classes (default: all)

local worst = args.worst

return function(event)
  local known = {}
  for _, class in ipairs(event.classes) do
    if class.dice then known[#known + 1] = class end
  end
  table.sort(known, function(a, b) return a.dice < b.dice end)
  local parts = {}
  for i = 1, math.min(#known, worst or #known) do
    local before = event.state[known[i].name]
    local change = before and string.format(" (%+.3f)", known[i].dice - before) or ""
    parts[i] = string.format("%s %.3f%s", known[i].name, known[i].dice, change)
  end
  for _, class in ipairs(known) do event.state[class.name] = class.dice end
  event.log(table.concat(parts, ", "))
end
