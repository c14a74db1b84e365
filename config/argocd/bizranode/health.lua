-- Health of a BizraNode: healthy when it says itself that it is in sync, degraded when something is wrong, suspended when
-- it was told to stand still.
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
if is("KeyNotInGenesis", "True") then
  return { status = "Degraded", message = conditions.KeyNotInGenesis.message }
end
if is("Degraded", "True") then
  return { status = "Degraded", message = conditions.Degraded.message }
end
for _, order in ipairs({ "Paused", "Fenced", "Replaced" }) do
  if is(order, "True") then
    return { status = "Suspended", message = conditions[order].message }
  end
end
if conditions.Ready ~= nil and conditions.Ready.reason == "Hibernated" then
  return { status = "Suspended", message = conditions.Ready.message }
end
if is("Ready", "True") then
  return { status = "Healthy", message = conditions.Ready.message }
end
-- The names under which a node stops by itself.
local stopped = {
  InvalidConfiguration = true,
  WrongGenesis = true,
  AddressUnavailable = true,
  DatabaseCorrupt = true,
  SigningRecordRefused = true,
  StorageFailed = true,
  UpgradeRequired = true,
  SignedElsewhere = true,
  VolumeFull = true,
}
if conditions.Ready ~= nil then
  local status = stopped[conditions.Ready.reason] and "Degraded" or "Progressing"
  return { status = status, message = conditions.Ready.message }
end
return { status = "Progressing", message = "waiting for the operator" }
