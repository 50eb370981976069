param($request)
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'

function Get-Value($record) {
    $data = $record.RecordData
    switch ([string]$record.RecordType) {
        'A'     { $data.IPv4Address.IPAddressToString }
        'AAAA'  { $data.IPv6Address.IPAddressToString }
        'SRV'   { '{0} {1} {2} {3}' -f $data.Priority, $data.Weight, $data.Port, $data.DomainName }
        'PTR'   { $data.PtrDomainName }
        'CNAME' { $data.HostNameAlias }
    }
}

function Find-Record($at) {
    try { $found = @(Get-DnsServerResourceRecord -ZoneName $at.zone -Name $at.name -Node) }
    catch {
        if ($_.FullyQualifiedErrorId -notmatch '^WIN32 (9701|9714)\b') { throw }   # no such record, no such name
        $found = @()
    }
    $found | Where-Object { Get-Value $_ }
}

function Test-Same($record, $op) {
    if ([string]$record.RecordType -ne $op.type) { return $false }
    $there = [string](Get-Value $record)
    if ($op.type -in 'A', 'AAAA') { return ([ipaddress]$op.value).Equals([ipaddress]$there) }
    return $op.value.TrimEnd('.') -eq $there.TrimEnd('.')
}

function Find-One($op) {
    Find-Record $op | Where-Object { Test-Same $_ $op }
}

function Add-One($op) {
    $with = @{ ZoneName = $op.zone; Name = $op.name; TimeToLive = [TimeSpan]::FromSeconds($op.ttl_s) }
    switch ($op.type) {
        'A' {
            $with.IPv4Address = $op.value
            Add-DnsServerResourceRecord @with -A
        }
        'AAAA' {
            $with.IPv6Address = $op.value
            Add-DnsServerResourceRecord @with -AAAA
        }
        'PTR' {
            $with.PtrDomainName = $op.value
            Add-DnsServerResourceRecord @with -Ptr
        }
        'CNAME' {
            $with.HostNameAlias = $op.value
            Add-DnsServerResourceRecord @with -CName
        }
        'SRV' {
            $with.Priority, $with.Weight, $with.Port, $with.DomainName = -split $op.value
            Add-DnsServerResourceRecord @with -Srv
        }
    }
}

function Invoke-One($op) {
    switch ($op.do) {
        'add'  { Add-One $op }
        'drop' {
            Find-One $op | ForEach-Object { Remove-DnsServerResourceRecord -ZoneName $op.zone -InputObject $_ -Force }
        }
        'ttl'  {
            Find-One $op | ForEach-Object {
                $new = [ciminstance]::new($_)
                $new.TimeToLive = [TimeSpan]::FromSeconds($op.ttl_s)
                Set-DnsServerResourceRecord -ZoneName $op.zone -OldInputObject $_ -NewInputObject $new
            }
        }
    }
}

function Invoke-All($operations) {
    $done = @()
    foreach ($op in $operations) {
        try { [void](Invoke-One $op) }
        catch {
            $failure = $_
            foreach ($before in $done) { try { [void](Invoke-One $before.undo) } catch { continue } }
            throw $failure
        }
        $done = @($op) + $done
    }
}

function Write-State($path, $text) {
    [void][IO.Directory]::CreateDirectory([IO.Path]::GetDirectoryName($path))
    $bytes = [Text.Encoding]::ASCII.GetBytes($text)
    $file = [IO.File]::Create("$path.new")
    try { $file.Write($bytes, 0, $bytes.Length); $file.Flush($true) } finally { $file.Dispose() }
    if ([IO.File]::Exists($path)) { [IO.File]::Replace("$path.new", $path, [NullString]::Value) }
    else { [IO.File]::Move("$path.new", $path) }
}

$answer = @{}
$held = $false
$mutex = New-Object System.Threading.Mutex($false, 'Global\k4t-dns')
try {
    try { $held = $mutex.WaitOne(15000) } catch [System.Threading.AbandonedMutexException] { $held = $true }
    if (-not $held) { throw 'another run of k4t has been at work here for 15 s' }
    $path = [IO.Path]::Combine($env:ProgramData, 'k4t', 'dns', $request.state + '.json')
    $text = ''
    if ([IO.File]::Exists($path)) { $text = [IO.File]::ReadAllText($path) }
    foreach ($zone in $request.zones) { [void](Get-DnsServerZone -Name $zone) }
    if ($request.write -and ($text -split "`n", 2)[0] -cne $request.expect) { $answer.raced = $true }
    else {
        Invoke-All $request.do
        if ($request.write) { Write-State $path $request.write; $text = $request.write }
    }
    $answer.state = $text
    $answer.found = @(foreach ($at in $request.ask) {
        foreach ($record in @(Find-Record $at)) {
            @{ zone = $at.zone; name = $at.name; type = [string]$record.RecordType
               ttl_s = [int]$record.TimeToLive.TotalSeconds; value = [string](Get-Value $record) }
        }
    })
}
catch {
    $answer = @{ error = @{ words = $_.Exception.Message; id = $_.FullyQualifiedErrorId
                            category = [string]$_.CategoryInfo.Category } }
}
finally { if ($held) { $mutex.ReleaseMutex() } }
$json = ConvertTo-Json -InputObject $answer -Compress -Depth 8
[Console]::Out.WriteLine([regex]::Replace($json, '[^\x20-\x7e]', { param($m) '\u{0:x4}' -f [int][char]$m.Value }))
