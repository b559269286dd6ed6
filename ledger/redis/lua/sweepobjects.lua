-- Removes objects that have expired. KEYS: floor, expiry; ARGV: now, clock, limit
local refused = wrong()
if refused then return refused end
if incomplete() then return {'INCOMPLETE'} end
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, member in ipairs(gone) do
  local kind, id = string.match(member, '^([^:]*):(.*)$')
  local name = objects(kind) .. 'v:' .. id
  local v = redis.call('GET', name) or ''
  redis.call('DEL', name)
  unlist(kind, id, v)
end
return {'OK', #gone}
