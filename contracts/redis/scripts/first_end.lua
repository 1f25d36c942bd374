-- Returns the predicted seconds until the first of the running jobs ends; false if none runs.
local _, _, seconds = running_jobs()
return seconds and tostring(seconds) or false
