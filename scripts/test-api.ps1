# Checks that a running server responds: the public routes, then the routes that $env:OCTOPUS_API_KEY may read. Read-only.
#
# $env:OCTOPUS_URL is the server (default http://localhost:8000).
trap { [Console]::Error.WriteLine("error: $_"); exit 1 }
. "$PSScriptRoot/lib.ps1"

$response = Invoke-Octopus GET / -Anonymous
Confirm-Step 'root' ([bool]$response.message) $response
$response = Invoke-Octopus GET /health -Anonymous
Confirm-Step 'health' ($response.status -eq 'healthy') $response
$response = Invoke-Octopus GET /ready -Anonymous
Confirm-Step 'ready' ($response.status -eq 'ready') $response
$response = Invoke-Octopus GET /openapi.json -Anonymous -Raw
Confirm-Step 'OpenAPI document' ($response -match '"openapi"\s*:\s*"3\.1') $response.Substring(0, [Math]::Min(200, $response.Length))
try { $response = Invoke-Octopus GET /api/v1/api-keys/me -Anonymous } catch { $response = "$_" }
Confirm-Step 'a request without a key is rejected' ("$response" -like '* returned 401: API key required*') $response

$me = Invoke-Octopus GET /api/v1/api-keys/me
Confirm-Step "the key is valid: `"$($me.name)`", scopes $($me.scopes)" $me.is_active $me

# Each request throws unless the status is 2xx.
$scopes = $me.scopes -split ','
if (($scopes -contains 'read') -or ($scopes -contains 'admin')) {
    $response = Invoke-Octopus GET '/api/v1/users/?limit=1'
    Confirm-Step 'users' $true
    $response = Invoke-Octopus GET '/api/v1/conversations/?limit=1&message_limit=0'
    Confirm-Step 'conversations' $true
    $response = Invoke-Octopus GET /api/v1/items/
    Confirm-Step 'items' $true
}
if ($scopes -contains 'admin') {
    $response = Invoke-Octopus GET '/api/v1/api-keys/?limit=1'
    Confirm-Step 'API keys' $true
    $response = Invoke-Octopus GET '/api/v1/api-keys/audit-logs/?limit=1'
    Confirm-Step 'audit log' $true
    $response = Invoke-Octopus GET /api/v1/admin/stats
    Confirm-Step 'statistics' $true
}
Write-Host 'All checks passed.'
