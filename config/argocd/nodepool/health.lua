-- Health of a NodePool: healthy when every node is in sync, degraded when somebody has to act, suspended when it was told to
-- stand still. A pool without nodes is as it was asked to be.
if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "being deleted" }
end
if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "waiting for the operator" }
end
local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end
local function is(type, status)
  return conditions[type] ~= nil and conditions[type].status == status
end
if is("Stalled", "True") then
  return { status = "Degraded", message = conditions.Stalled.message }
end
for _, order in ipairs({ "Paused", "Hibernated" }) do
  if is(order, "True") then
    return { status = "Suspended", message = conditions[order].message }
  end
end
if is("Ready", "True") then
  return { status = "Healthy", message = conditions.Ready.message }
end
if conditions.Ready ~= nil then
  return { status = "Progressing", message = conditions.Ready.message }
end
return { status = "Progressing", message = "waiting for the operator" }
