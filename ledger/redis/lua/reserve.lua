-- Reserves a key: expires 18 | n or a | length of payment 2 | payment | created 18 | fingerprint 32 | token 8 | answer
-- KEYS: floor, reservation, expiry; ARGV: now, clock, member, value, over, token, expires, expires in ms ('': never by itself), import (1: the ledger may be incomplete)
local refused = wrong()
if refused then return refused end
if ARGV[9] ~= '1' and incomplete() then return {'INCOMPLETE'} end
local v = redis.call('GET', KEYS[2])
if v and tonumber(string.sub(v, 1, 18)) > now then
  local n = struct.unpack('>I2', v, 20)
  if string.sub(v, 72 + n, 79 + n) ~= ARGV[6] and (ARGV[5] == '' or string.sub(v, 22, 21 + n) ~= ARGV[5]) then
    return {'EXISTS', v}
  end
end
redis.call('SET', KEYS[2], ARGV[4])
if ARGV[8] ~= '' then redis.call('PEXPIREAT', KEYS[2], ARGV[8]) end
redis.call('ZADD', KEYS[3], ARGV[7], ARGV[3])
return {'OK'}
