# Manages API keys. Wants an admin key in $env:OCTOPUS_API_KEY.
#
#   ./scripts/manage-api-keys.ps1 list                                all keys, the inactive ones too
#   ./scripts/manage-api-keys.ps1 create NAME [SCOPES] [EXPIRES_AT]   SCOPES like "read,write" (default read),
#                                                                     EXPIRES_AT like 2030-12-31T00:00:00Z
#   ./scripts/manage-api-keys.ps1 show ID
#   ./scripts/manage-api-keys.ps1 rotate ID                           a new key with the same properties; the old one ends
#   ./scripts/manage-api-keys.ps1 deactivate ID
#   ./scripts/manage-api-keys.ps1 delete ID
#   ./scripts/manage-api-keys.ps1 audit                               the newest 50 entries of the audit log
#
# $env:OCTOPUS_URL names the server (default http://localhost:8000).
param([string]$Command = 'help', [string]$Target, [string[]]$Scopes = @('read'), [string]$ExpiresAt)
trap { [Console]::Error.WriteLine("error: $_"); exit 1 }
. "$PSScriptRoot/lib.ps1"
$keys = '/api/v1/api-keys'

function Get-Id {
    if ($Target -notmatch '^[0-9]+$') { throw 'ID is a number, see: ./scripts/manage-api-keys.ps1 list' }
    $Target
}

function Show-NewKey {
    param($Key)
    $Key | Select-Object -Property * -ExcludeProperty key | Format-List
    Write-Host 'The key. Keep it somewhere safe, it cannot be shown again:'
    $Key.key
}

switch ($Command) {
    'list' {
        Invoke-Octopus GET "$keys/?include_inactive=true&limit=1000" |
            Format-Table -AutoSize -Property @('id', 'name', 'scopes', 'is_active', 'expires_at', 'last_used_at')
    }
    'create' {
        if (-not $Target) { throw 'create wants a NAME' }
        # PowerShell makes a list of an unquoted read,write
        $body = @{ name = $Target; scopes = $Scopes -join ',' }
        if ($ExpiresAt) { $body.expires_at = $ExpiresAt }
        Show-NewKey (Invoke-Octopus POST "$keys/" $body)
    }
    'show' { Invoke-Octopus GET "$keys/$(Get-Id)" | Format-List }
    'rotate' { Show-NewKey (Invoke-Octopus POST "$keys/$(Get-Id)/rotate") }
    'deactivate' {
        Invoke-Octopus POST "$keys/$(Get-Id)/deactivate" | Out-Null
        Write-Host "Key $Target is deactivated."
    }
    'delete' {
        Invoke-Octopus DELETE "$keys/$(Get-Id)" | Out-Null
        Write-Host "Key $Target is deleted."
    }
    'audit' {
        Invoke-Octopus GET "$keys/audit-logs/?limit=50" |
            Format-Table -AutoSize -Property @('api_key_id', 'timestamp', 'action', 'performed_by_key_id', 'performed_by_ip')
    }
    default {
        Get-Content $PSCommandPath -TotalCount 12 | ForEach-Object { $_ -replace '^# ?', '' }
        if ($Command -ne 'help') { exit 2 }
    }
}
