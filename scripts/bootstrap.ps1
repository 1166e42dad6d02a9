# Makes the first API key of a fresh server. It is shown once and never again.
#
#   ./scripts/bootstrap.ps1                           prints it
#   $env:OCTOPUS_API_KEY = ./scripts/bootstrap.ps1    keeps it for this session
#
# $env:OCTOPUS_URL names the server (default http://localhost:8000). If the server has a BOOTSTRAP_TOKEN, put the same
# token into $env:OCTOPUS_BOOTSTRAP_TOKEN.
trap { [Console]::Error.WriteLine("error: $_"); exit 1 }
. "$PSScriptRoot/lib.ps1"

$headers = @{}
if ($env:OCTOPUS_BOOTSTRAP_TOKEN) { $headers['Octopus-Bootstrap-Token'] = $env:OCTOPUS_BOOTSTRAP_TOKEN }
$answer = Invoke-Octopus POST /bootstrap -Headers $headers -Anonymous

Write-Host "Made the master key ($($answer.scopes)). Keep it somewhere safe: it cannot be shown again."
$answer.api_key
Write-Host 'Use it with: $env:OCTOPUS_API_KEY = "..."'
