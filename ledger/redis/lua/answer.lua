-- Keeps the first answer to what was reserved.
-- KEYS: floor, reservation, expiry; ARGV: now, clock, member, payment, answer, expires, expires in ms, n or a
local refused = wrong()
if refused then return refused end
if incomplete() then return {'INCOMPLETE'} end
local v = redis.call('GET', KEYS[2])
if not v or tonumber(string.sub(v, 1, 18)) <= now then return {'GONE'} end
local n = struct.unpack('>I2', v, 20)
if string.sub(v, 22, 21 + n) ~= ARGV[4] then return {'GONE'} end
if string.sub(v, 19, 19) == 'a' then return {'OK'} end
redis.call('SET', KEYS[2], ARGV[6] .. ARGV[8] .. string.sub(v, 20, 79 + n) .. ARGV[5])
if ARGV[7] ~= '' then redis.call('PEXPIREAT', KEYS[2], ARGV[7]) end
redis.call('ZADD', KEYS[3], ARGV[6], ARGV[3])
return {'OK'}
