-- Stores an object, whose value is as objects.go says, if what is there is as expected.
-- KEYS: floor, object; ARGV: now, clock, kind, id, expected version ('': the id must be free), value, import (1: the ledger may be incomplete)
local refused = wrong()
if refused then return refused end
if ARGV[7] ~= '1' and incomplete() then return {'INCOMPLETE'} end
local kind, id, value = ARGV[3], ARGV[4], ARGV[6]
local v = redis.call('GET', KEYS[2])
if v and string.sub(v, 1, 8) == string.sub(value, 1, 8) then return {'OK'} end
local there = v and (ARGV[7] == '1' or lives(v))
if ARGV[5] == '' then
  if there then return {'EXISTS', v} end
elseif not there or string.sub(v, 9, 27) ~= ARGV[5] or group(v) ~= group(value) then
  return {'CHANGED'}
end
if v then unlist(kind, id, v) end
redis.call('SET', KEYS[2], value)
enlist(kind, id, value)
return {'OK'}
