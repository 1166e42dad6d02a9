# What the PowerShell scripts in this folder share. Works in Windows PowerShell 5.1 and in PowerShell 7.

$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
Set-StrictMode -Version Latest

$OctopusUrl = 'http://localhost:8000'
if ($env:OCTOPUS_URL) { $OctopusUrl = $env:OCTOPUS_URL.TrimEnd('/') }

function Get-OctopusKey {
    if (-not $env:OCTOPUS_API_KEY) {
        throw 'OCTOPUS_API_KEY is not set: $env:OCTOPUS_API_KEY = "..." (make one with scripts/bootstrap.ps1)'
    }
    $env:OCTOPUS_API_KEY
}

# The server's own words for what went wrong, out of the body of its answer.
function Get-Detail {
    param([string]$Text)
    try { $detail = (ConvertFrom-Json $Text).detail } catch { return $Text }
    if ($detail -is [string]) { return $detail }
    ($detail | ForEach-Object { "$($_.loc -join '.'): $($_.msg)" }) -join '; '
}

# One request; returns the answer's objects, or with -Raw its text. Anything but a 2xx throws the server's own words.
function Invoke-Octopus {
    param([string]$Method, [string]$Path, $Body, [hashtable]$Headers = @{}, [switch]$Anonymous, [switch]$Raw)
    $request = @{
        Method          = $Method
        Uri             = "$OctopusUrl$Path"
        Headers         = $Headers.Clone()
        TimeoutSec      = 60
        UseBasicParsing = $true
    }
    if (-not $Anonymous) { $request.Headers['Octopus-API-Key'] = Get-OctopusKey }
    if ($Method -ne 'GET') { $request.ContentType = 'application/json' }
    # as bytes: Windows PowerShell would send a string as Latin-1
    if ($null -ne $Body) { $request.Body = [Text.Encoding]::UTF8.GetBytes((ConvertTo-Json $Body -Depth 5)) }

    try { $answer = Invoke-WebRequest @request }
    catch {
        $response = $null
        if ($_.Exception.PSObject.Properties['Response']) { $response = $_.Exception.Response }
        if ($null -eq $response) { throw "no answer from ${OctopusUrl} (is the server running there?): $($_.Exception.Message)" }
        $detail = ''
        if ($_.ErrorDetails) { $detail = Get-Detail $_.ErrorDetails.Message }
        throw "$Method $Path answered $([int]$response.StatusCode): $detail"
    }
    $text = [Text.Encoding]::UTF8.GetString($answer.RawContentStream.ToArray())
    if ($Raw) { return $text }
    if ($text) {
        # by way of a variable, so that both versions hand on a list's members one by one
        $value = ConvertFrom-Json $text
        $value
    }
}

# Prints one line when the condition holds, and throws when it does not.
function Confirm-Step {
    param([string]$Text, [bool]$Condition, $Got)
    if (-not $Condition) { throw "wrong answer at '$Text': $(ConvertTo-Json $Got -Depth 5 -Compress)" }
    Write-Host "ok  $Text"
}
