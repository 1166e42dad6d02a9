# Functions shared by the PowerShell scripts in this folder, for Windows PowerShell 5.1 and PowerShell 7.

$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
Set-StrictMode -Version Latest

$OctopusUrl = 'http://localhost:8000'
if ($env:OCTOPUS_URL) { $OctopusUrl = $env:OCTOPUS_URL.TrimEnd('/') }

function Get-OctopusKey {
    if (-not $env:OCTOPUS_API_KEY) {
        throw 'OCTOPUS_API_KEY is not set: $env:OCTOPUS_API_KEY = "..." (scripts/bootstrap.ps1 creates one)'
    }
    $env:OCTOPUS_API_KEY
}

# Returns the error text in the body of a response.
function Get-Detail {
    param([string]$Text)
    try { $detail = (ConvertFrom-Json $Text).detail } catch { return $Text }
    if ($detail -is [string]) { return $detail }
    ($detail | ForEach-Object { "$($_.loc -join '.'): $($_.msg)" }) -join '; '
}

# Sends a request; returns the objects of the response, or its text with -Raw. Throws unless the status is 2xx.
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
    # bytes, because Windows PowerShell sends a string as Latin-1
    if ($null -ne $Body) { $request.Body = [Text.Encoding]::UTF8.GetBytes((ConvertTo-Json $Body -Depth 5)) }

    try { $result = Invoke-WebRequest @request }
    catch {
        $response = $null
        if ($_.Exception.PSObject.Properties['Response']) { $response = $_.Exception.Response }
        if ($null -eq $response) { throw "no response from ${OctopusUrl} (is the server running there?): $($_.Exception.Message)" }
        $detail = ''
        if ($_.ErrorDetails) { $detail = Get-Detail $_.ErrorDetails.Message }
        throw "$Method $Path returned $([int]$response.StatusCode): $detail"
    }
    $text = [Text.Encoding]::UTF8.GetString($result.RawContentStream.ToArray())
    if ($Raw) { return $text }
    if ($text) {
        # assigned to a variable first, so that both PowerShell versions return the items of a list one by one
        $value = ConvertFrom-Json $text
        $value
    }
}

# Prints a line if the condition is true, otherwise throws.
function Confirm-Step {
    param([string]$Text, [bool]$Condition, $Got)
    if (-not $Condition) { throw "unexpected response at '$Text': $(ConvertTo-Json $Got -Depth 5 -Compress)" }
    Write-Host "ok  $Text"
}
