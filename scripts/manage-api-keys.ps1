# Manages API keys. Requires an admin key in $env:OCTOPUS_API_KEY.
#
#   ./scripts/manage-api-keys.ps1 list                                all keys, including inactive ones
#   ./scripts/manage-api-keys.ps1 create NAME [SCOPES] [EXPIRES_AT]   SCOPES like "read,write" (default read),
#                                                                     EXPIRES_AT like 2030-12-31T00:00:00Z
#   ./scripts/manage-api-keys.ps1 show ID
#   ./scripts/manage-api-keys.ps1 usage ID                            requests with the key in the last 30 days, by day
#   ./scripts/manage-api-keys.ps1 rotate ID [-Seconds SECONDS]        creates a new key with the same properties; the old key
#                                                                     expires after SECONDS (default 0)
#   ./scripts/manage-api-keys.ps1 deactivate ID
#   ./scripts/manage-api-keys.ps1 delete ID
#   ./scripts/manage-api-keys.ps1 audit                               the newest 50 entries of the audit log
#   ./scripts/manage-api-keys.ps1 verify                              verifies that the audit log is unmodified
#
# $env:OCTOPUS_URL is the server (default http://localhost:8000).
param([string]$Command = 'help', [string]$Target, [string[]]$Scopes = @('read'), [string]$ExpiresAt, [int]$Seconds = 0)
trap { [Console]::Error.WriteLine("error: $_"); exit 1 }
. "$PSScriptRoot/lib.ps1"
$keys = '/api/v1/api-keys'

function Get-Id {
    if ($Target -notmatch '^[0-9]+$') { throw 'ID must be a number; ./scripts/manage-api-keys.ps1 list shows the ids' }
    $Target
}

function Show-NewKey {
    param($Key)
    $Key | Select-Object -Property * -ExcludeProperty key | Format-List
    Write-Host 'The key. Store it safely: it cannot be shown again.'
    $Key.key
}

switch ($Command) {
    'list' {
        Invoke-Octopus GET "$keys/?include_inactive=true&limit=1000" |
            Format-Table -AutoSize -Property @('id', 'name', 'scopes', 'is_active', 'expires_at', 'last_used_at')
    }
    'create' {
        if (-not $Target) { throw 'create requires a NAME' }
        # PowerShell parses an unquoted read,write as a list
        $body = @{ name = $Target; scopes = $Scopes -join ',' }
        if ($ExpiresAt) { $body.expires_at = $ExpiresAt }
        Show-NewKey (Invoke-Octopus POST "$keys/" $body)
    }
    'show' { Invoke-Octopus GET "$keys/$(Get-Id)" | Format-List }
    'usage' {
        (Invoke-Octopus GET "$keys/$(Get-Id)/usage").buckets |
            Format-Table -AutoSize -Property @('start', 'ok', 'denied_scope', 'denied_address', 'rate_limited', 'expired')
    }
    'rotate' { Show-NewKey (Invoke-Octopus POST "$keys/$(Get-Id)/rotate" @{ grace_period_seconds = $Seconds }) }
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
            Format-Table -AutoSize -Property @('api_key_id', 'timestamp', 'action', 'performed_by', 'performed_by_key_id', 'performed_by_ip')
    }
    'verify' {
        $found = Invoke-Octopus GET '/api/v1/admin/audit/verify'
        if (-not $found.intact) { throw "the audit log is invalid at entry $($found.first_bad.seq): $($found.first_bad.problem)" }
        Write-Host "The audit log is intact: $($found.verified_rows) entries. Its head, to be stored elsewhere:"
        $found.head
    }
    default {
        Get-Content $PSCommandPath -TotalCount 15 | ForEach-Object { $_ -replace '^# ?', '' }
        if ($Command -ne 'help') { exit 2 }
    }
}
