-- Reads payments of an index.
-- KEYS: floor, index; ARGV: now, clock, payments' prefix, command, from, to, offset, count
local got = {}
for _, id in ipairs(redis.call(ARGV[4], KEYS[2], ARGV[5], ARGV[6], 'LIMIT', ARGV[7], ARGV[8])) do
  got[#got + 1] = redis.call('GET', ARGV[3] .. id) or ''
end
return {'OK', got}
