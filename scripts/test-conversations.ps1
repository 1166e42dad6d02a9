# Creates two users and a conversation between them, reads it back, and deletes all of it. Requires an admin key in
# $env:OCTOPUS_API_KEY, because only an administrator may delete users.
#
# $env:OCTOPUS_URL is the server (default http://localhost:8000).
trap { [Console]::Error.WriteLine("error: $_"); exit 1 }
. "$PSScriptRoot/lib.ps1"

$run = [guid]::NewGuid().ToString('N').Substring(0, 12)
$created = New-Object System.Collections.Generic.List[string]

function New-User {
    param([string]$Name)
    $user = Invoke-Octopus POST /api/v1/users/ @{ username = $Name; email = "$Name@example.com"; password = [guid]::NewGuid().ToString() }
    $created.Add("/api/v1/users/$($user.id)")
    Confirm-Step "$Name registers" ($user.username -eq $Name) $user
    $user
}

try {
    $ada = New-User "ada-$run"
    $ben = New-User "ben-$run"

    $conversation = Invoke-Octopus POST /api/v1/conversations/ @{ title = "Test $run"; participant_ids = @($ada.id, $ben.id) }
    $path = "/api/v1/conversations/$($conversation.id)"
    $created.Insert(0, $path)
    Confirm-Step 'a conversation is created' (@($conversation.participants).Count -eq 2) $conversation

    $message = Invoke-Octopus POST "$path/messages" @{ role = 'user'; content = 'Hello Ben'; user_id = $ada.id }
    Confirm-Step 'ada writes' ($message.user_id -eq $ada.id) $message
    $message = Invoke-Octopus POST "$path/messages" @{ role = 'user'; content = 'Hello Ada'; user_id = $ben.id }
    Confirm-Step 'ben answers' ($message.user_id -eq $ben.id) $message
    $message = Invoke-Octopus POST "$path/messages" @{ role = 'assistant'; content = 'Hello both' }
    Confirm-Step 'an assistant answers' (($message.role -eq 'assistant') -and ($null -eq $message.user)) $message

    $conversation = Invoke-Octopus GET $path
    $contents = @($conversation.messages | ForEach-Object { $_.content }) -join ', '
    Confirm-Step 'the messages are read back in order' ($contents -eq 'Hello Ben, Hello Ada, Hello both') $conversation
    $found = @(Invoke-Octopus GET "/api/v1/conversations/user/$($ada.id)")
    Confirm-Step 'the conversations of ada are listed' (($found.Count -eq 1) -and ($found[0].title -eq "Test $run")) $found
}
finally {
    foreach ($path in $created) {
        try {
            Invoke-Octopus DELETE $path | Out-Null
            Write-Host "ok  $path is deleted"
        }
        catch { [Console]::Error.WriteLine("could not delete: $_") }
    }
}
Write-Host 'All steps passed.'
