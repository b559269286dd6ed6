-- Forgets a payment that is in a version and unmarked; its claim stays until a time.
-- KEYS: floor, payment, due, held, log, authorization, born, indexes...
-- ARGV: now, clock, id, version, versions of the log, claim ('': goes too), claim's end in ms, indexes
local refused = wrong()
if refused then return refused end
local v = redis.call('GET', KEYS[2])
if not v then return {'GONE'} end
if string.sub(v, 1, 8) ~= ARGV[4] or mark(v) ~= '' then return {'CHANGED'} end
redis.call('DEL', KEYS[2])
place(KEYS[3], KEYS[4], ARGV[3], '0')
for i = 1, #ARGV[5], 4 do redis.call('ZREM', KEYS[5], ARGV[3] .. string.sub(ARGV[5], i, i + 3)) end
if ARGV[6] == '' then
  redis.call('DEL', KEYS[6])
else
  redis.call('SET', KEYS[6], ARGV[6])
  if ARGV[7] ~= '' then redis.call('PEXPIREAT', KEYS[6], ARGV[7]) end
end
redis.call('INCR', KEYS[7])
index(8, ARGV[3])
return {'OK'}
