-- Forgets a payment that is in a version and unmarked; its claim stays until a time.
-- KEYS: floor, payment, due, held, log, authorization, born, indexes...
-- ARGV: now, clock, id, version, claim ('': goes too), claim's end in ms, entries of the log (how many, then time and version each), indexes
local refused = wrong()
if refused then return refused end
if incomplete() then return {'INCOMPLETE'} end
local v = redis.call('GET', KEYS[2])
if not v then return {'GONE'} end
if string.sub(v, 1, 8) ~= ARGV[4] or mark(v) ~= '' then return {'CHANGED'} end
redis.call('DEL', KEYS[2])
place(KEYS[3], KEYS[4], ARGV[3], '0')
if ARGV[5] == '' then
  redis.call('DEL', KEYS[6])
else
  redis.call('SET', KEYS[6], ARGV[5])
  if ARGV[6] ~= '' then redis.call('PEXPIREAT', KEYS[6], ARGV[6]) end
end
local at = 8
for _ = 1, tonumber(ARGV[7]) do
  local name = list(KEYS[5], ARGV[at])
  if name then
    redis.call('ZREM', KEYS[5] .. name, ARGV[3] .. ARGV[at + 1])
    -- The last list stays: its number is not given twice.
    if redis.call('EXISTS', KEYS[5] .. name) == 0 and name ~= '0' and redis.call('ZRANGE', KEYS[5], -1, -1)[1] ~= name then
      redis.call('ZREM', KEYS[5], name)
    end
  end
  at = at + 2
end
redis.call('INCR', KEYS[7])
index(at, ARGV[3])
return {'OK'}
