# Creates the first API key of a new server. The key is shown only once.
#
#   ./scripts/bootstrap.ps1                           prints the key
#   $env:OCTOPUS_API_KEY = ./scripts/bootstrap.ps1    sets it for this session
#
# $env:OCTOPUS_URL is the server (default http://localhost:8000). If the server has a BOOTSTRAP_TOKEN, set
# $env:OCTOPUS_BOOTSTRAP_TOKEN to the same token.
trap { [Console]::Error.WriteLine("error: $_"); exit 1 }
. "$PSScriptRoot/lib.ps1"

$headers = @{}
if ($env:OCTOPUS_BOOTSTRAP_TOKEN) { $headers['Octopus-Bootstrap-Token'] = $env:OCTOPUS_BOOTSTRAP_TOKEN }
$response = Invoke-Octopus POST /bootstrap -Headers $headers -Anonymous

Write-Host "Created the master key ($($response.scopes)). Store it safely: it cannot be shown again."
$response.api_key
Write-Host 'Use it with: $env:OCTOPUS_API_KEY = "..."'
