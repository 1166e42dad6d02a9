# A quick look at a running server: the public routes, then whatever $env:OCTOPUS_API_KEY may read. Changes nothing.
#
# $env:OCTOPUS_URL names the server (default http://localhost:8000).
trap { [Console]::Error.WriteLine("error: $_"); exit 1 }
. "$PSScriptRoot/lib.ps1"

$answer = Invoke-Octopus GET / -Anonymous
Confirm-Step 'front door' ([bool]$answer.message) $answer
$answer = Invoke-Octopus GET /health -Anonymous
Confirm-Step 'health' ($answer.status -eq 'healthy') $answer
$answer = Invoke-Octopus GET /ready -Anonymous
Confirm-Step 'ready' ($answer.status -eq 'ready') $answer
$answer = Invoke-Octopus GET /openapi.json -Anonymous -Raw
Confirm-Step 'OpenAPI document' ($answer -match '"openapi"\s*:\s*"3\.1') $answer.Substring(0, [Math]::Min(200, $answer.Length))
try { $answer = Invoke-Octopus GET /api/v1/api-keys/me -Anonymous } catch { $answer = "$_" }
Confirm-Step 'no key is refused' ("$answer" -like '* answered 401: API key required') $answer

$me = Invoke-Octopus GET /api/v1/api-keys/me
Confirm-Step "the key is known: `"$($me.name)`", scopes $($me.scopes)" $me.is_active $me

# Each of these throws unless the server answers 2xx.
$scopes = $me.scopes -split ','
if (($scopes -contains 'read') -or ($scopes -contains 'admin')) {
    $answer = Invoke-Octopus GET '/api/v1/users/?limit=1'
    Confirm-Step 'users' $true
    $answer = Invoke-Octopus GET '/api/v1/conversations/?limit=1&message_limit=0'
    Confirm-Step 'conversations' $true
    $answer = Invoke-Octopus GET /api/v1/items/
    Confirm-Step 'items' $true
}
if ($scopes -contains 'admin') {
    $answer = Invoke-Octopus GET '/api/v1/api-keys/?limit=1'
    Confirm-Step 'API keys' $true
    $answer = Invoke-Octopus GET '/api/v1/api-keys/audit-logs/?limit=1'
    Confirm-Step 'audit log' $true
    $answer = Invoke-Octopus GET /api/v1/admin/stats
    Confirm-Step 'statistics' $true
}
Write-Host 'All checks passed.'
