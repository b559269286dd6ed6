-- Notes that a payment of a transaction is forgotten; with the last of them the transaction goes.
-- KEYS: floor, wallet; ARGV: now, clock, hash, nonce field, id, how many payments it carries
if redis.call('HEXISTS', KEYS[2], 't' .. ARGV[3]) == 0 then return {'GONE'} end
local field = 'g' .. ARGV[3]
local gone = redis.call('HGET', KEYS[2], field) or ''
if not string.find(gone, ARGV[5] .. ';', 1, true) then gone = gone .. ARGV[5] .. ';' end
local _, n = string.gsub(gone, ';', '')
if n < tonumber(ARGV[6]) then
  redis.call('HSET', KEYS[2], field, gone)
  return {'OK'}
end
redis.call('HDEL', KEYS[2], 't' .. ARGV[3], field)
local rivals, rest = redis.call('HGET', KEYS[2], ARGV[4]) or '', ''
for i = 1, #rivals, 32 do
  local hash = string.sub(rivals, i, i + 31)
  if hash ~= ARGV[3] then rest = rest .. hash end
end
if rest == '' then redis.call('HDEL', KEYS[2], ARGV[4]) else redis.call('HSET', KEYS[2], ARGV[4], rest) end
return {'OK'}
