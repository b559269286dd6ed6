-- Gives objects by when they are due: id and value of each. MORE says that there may be others from the offset on that comes with it.
-- KEYS: floor, list; ARGV: now, clock, objects' prefix, until, limit, offset
local got, left, size, looked, offset = {}, tonumber(ARGV[5]), 0, 0, tonumber(ARGV[6])
while true do
  local ids = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[4], 'LIMIT', offset, 100)
  for _, id in ipairs(ids) do
    if left == 0 or size > 1048576 or looked == 5000 then return {'MORE', got, string.format('%.0f', offset)} end
    offset, looked = offset + 1, looked + 1
    local v = redis.call('GET', ARGV[3] .. id)
    if v and lives(v) then
      got[#got + 1] = id
      got[#got + 1] = v
      left, size = left - 1, size + #v
    end
  end
  if #ids < 100 then return {'OK', got} end
end
