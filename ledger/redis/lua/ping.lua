-- Shows that a part can be written. KEYS: floor, ping
redis.call('SET', KEYS[2], ARGV[1])
if incomplete() then return {'INCOMPLETE'} end
return {'OK'}
