-- Adds a member to a set. KEYS: set, state of the copy; ARGV: now, clock, member, import (1: the ledger may be incomplete)
if ARGV[4] ~= '1' and redis.call('EXISTS', KEYS[2]) == 1 then return {'INCOMPLETE'} end
redis.call('SADD', KEYS[1], ARGV[3])
return {'OK'}
