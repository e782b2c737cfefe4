# Installs aegis on Windows x64: iwr -useb https://get.100monkeys.ai | iex
#
# Windows PowerShell 5.1 or newer. Settings come from the environment, because `iex` takes no parameters:
#   AEGIS_VERSION      such as 0.2.0; the latest when unset
#   AEGIS_INSTALL_DIR  where aegis.exe goes; %LOCALAPPDATA%\Programs\aegis when unset
#   AEGIS_BASE_URL     another place that serves the same files
#   AEGIS_FROM         a folder with a downloaded release; no network is used
#   AEGIS_DRY_RUN=1    say what would be done and change nothing
#   AEGIS_UNINSTALL=1  remove what was installed
# Nothing is placed before the release's signature and the archive's digest were checked.
# Everything happens in Install-Aegis, which the last line calls: half a script does nothing.

$AegisReleaseKey = @'
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEXsX1LQiXTU5cLbi7cCk6RsOM9CxW
mGkBB54XjWRAQeFP/PqnyTlaytGMcS4TRaHbYmWbn/8TmOTV2yKPHI4noQ==
-----END PUBLIC KEY-----
'@

# DER (SEQUENCE of two INTEGERs) to the 64 bytes r|s that .NET Framework takes.
function ConvertFrom-DerSignature([byte[]] $Der) {
    $out = New-Object byte[] 64
    $at = 2
    foreach ($end in 32, 64) {
        $length = [int] $Der[$at + 1]
        $start = $at + 2
        $at = $start + $length
        while ($length -gt 32) { $start = $start + 1; $length = $length - 1 }
        [Array]::Copy($Der, $start, $out, $end - $length, $length)
    }
    return , $out
}

function Test-AegisSignature([byte[]] $Message, [byte[]] $Der) {
    $base64 = ($AegisReleaseKey -split "`n" | Where-Object { $_ -notmatch '-----' }) -join ''
    $spki = [Convert]::FromBase64String($base64.Trim())
    # ECS1, 32, then X and Y: the end of a P-256 SubjectPublicKeyInfo.
    [byte[]] $blob = [byte[]] (0x45, 0x43, 0x53, 0x31, 32, 0, 0, 0) + [byte[]] $spki[27..90]
    $key = [Security.Cryptography.CngKey]::Import($blob, [Security.Cryptography.CngKeyBlobFormat]::EccPublicBlob)
    $verifier = New-Object Security.Cryptography.ECDsaCng $key
    $signature = ConvertFrom-DerSignature $Der
    return $verifier.VerifyData($Message, $signature, [Security.Cryptography.HashAlgorithmName]::SHA256)
}

function Get-AegisFile([string] $Name, [string] $Path) {
    if ($env:AEGIS_FROM) {
        Copy-Item -LiteralPath (Join-Path $env:AEGIS_FROM $Name) -Destination $Path
        return
    }
    $base = 'https://get.100monkeys.ai'
    if ($env:AEGIS_BASE_URL) { $base = $env:AEGIS_BASE_URL.TrimEnd('/') }
    if ($base -notmatch '^https://' -and $base -notmatch '^http://(127\.0\.0\.1|localhost)[:/]') {
        throw "aegis: $base is not an https address"
    }
    $release = 'latest'
    if ($env:AEGIS_VERSION) { $release = 'v' + $env:AEGIS_VERSION }
    Invoke-WebRequest -UseBasicParsing -Uri "$base/releases/$release/$Name" -OutFile $Path
}

function Uninstall-Aegis([string] $Folder) {
    $executable = Join-Path $Folder 'aegis.exe'
    if (-not (Test-Path -LiteralPath $executable)) { throw "aegis: there is no $executable" }
    if (Get-Service -Name 'aegis-edge' -ErrorAction SilentlyContinue) {
        throw 'aegis: the service aegis-edge is still installed; first: aegis edge logout; aegis edge service uninstall'
    }
    if ($env:AEGIS_DRY_RUN) { Write-Host "would remove aegis from $Folder"; return }
    & $executable install path remove
    # Only what is ours: the folder may be one that somebody else uses too.
    Get-ChildItem -LiteralPath $Folder -File |
        Where-Object { $_.Name -match '^(aegis|nssm64)\.exe($|\.(new|previous|old-|running-))' } |
        ForEach-Object { Remove-Item -LiteralPath $_.FullName -Force }
    if (-not (Get-ChildItem -LiteralPath $Folder -Force)) { Remove-Item -LiteralPath $Folder }
    Write-Host "removed aegis from $Folder; keys and settings stay in $env:USERPROFILE\.aegis"
}

# Whether version $Left comes before $Right: numbers only, a suffix such as -rc.1 is not compared.
function Test-AegisOlder([string] $Left, [string] $Right) {
    return [Version] ($Left -replace '-.*$', '') -lt [Version] ($Right -replace '-.*$', '')
}

function Install-Aegis {
    $ErrorActionPreference = 'Stop'
    $ProgressPreference = 'SilentlyContinue'
    [Net.ServicePointManager]::SecurityProtocol = [Net.ServicePointManager]::SecurityProtocol -bor [Net.SecurityProtocolType]::Tls12
    if ($env:PROCESSOR_ARCHITECTURE -ne 'AMD64' -and $env:PROCESSOR_ARCHITEW6432 -ne 'AMD64') {
        throw "aegis: there is no aegis for the processor $env:PROCESSOR_ARCHITECTURE; there is one for x64"
    }
    $folder = Join-Path $env:LOCALAPPDATA 'Programs\aegis'
    if ($env:AEGIS_INSTALL_DIR) { $folder = $env:AEGIS_INSTALL_DIR }
    if ($env:AEGIS_UNINSTALL) { Uninstall-Aegis $folder; return }

    $scratch = Join-Path ([IO.Path]::GetTempPath()) ('aegis-install-' + [Guid]::NewGuid().ToString('N'))
    New-Item -ItemType Directory -Path $scratch | Out-Null
    try {
        $list = Join-Path $scratch 'SHA256SUMS'
        Get-AegisFile 'SHA256SUMS' $list
        Get-AegisFile 'SHA256SUMS.sig' "$list.sig"
        if (-not (Test-AegisSignature ([IO.File]::ReadAllBytes($list)) ([IO.File]::ReadAllBytes("$list.sig")))) {
            throw 'aegis: SHA256SUMS is not signed by the aegis release key; nothing was installed, do not use this copy'
        }
        $entry = [IO.File]::ReadAllLines($list) | Where-Object { $_ -match '^[0-9a-f]{64} [ *]aegis-[0-9][0-9A-Za-z.+-]*-windows-x64\.zip$' } | Select-Object -First 1
        if (-not $entry) { throw 'aegis: this release has no archive for windows-x64' }
        $digest = $entry.Substring(0, 64)
        $name = $entry.Substring(66)
        $version = $name -replace '^aegis-', '' -replace '-windows-x64\.zip$', ''
        if ($env:AEGIS_VERSION -and $env:AEGIS_VERSION -ne $version) {
            throw "aegis: this is aegis $version, not the $env:AEGIS_VERSION that was asked for"
        }
        # A mirror can sign nothing, but it could hand out an old release for the latest.
        $present = Join-Path $folder 'aegis.exe'
        if (-not $env:AEGIS_VERSION -and (Test-Path -LiteralPath $present)) {
            # One that does not run is replaced by whatever does.
            try { $before = (& $present --version) -join '' } catch { $before = '' }
            if ($before -match '^aegis (\d+\.\d+\.\d+.*)$' -and (Test-AegisOlder $version $Matches[1])) {
                throw "aegis: the release is $version, which is older than the $before that is there; if you want it, set AEGIS_VERSION"
            }
        }
        if ($env:AEGIS_DRY_RUN) { Write-Host "would install aegis $version to $folder"; return }

        $archive = Join-Path $scratch $name
        Get-AegisFile $name $archive
        $found = (Get-FileHash -LiteralPath $archive -Algorithm SHA256).Hash.ToLowerInvariant()
        if ($found -ne $digest) {
            throw "aegis: $name is damaged: its SHA-256 is $found, the signed one $digest; nothing was installed, try again"
        }
        Expand-Archive -LiteralPath $archive -DestinationPath $scratch
        $fresh = Join-Path $scratch "aegis-$version-windows-x64"
        $said = (& (Join-Path $fresh 'aegis.exe') --version) -join ''
        if ($said -ne "aegis $version") { throw "aegis: the new executable does not run on this machine; it said '$said'" }

        New-Item -ItemType Directory -Force -Path $folder | Out-Null
        foreach ($file in 'nssm64.exe', 'aegis.exe') {
            $target = Join-Path $folder $file
            Remove-Item -Path "$target.old-*" -Force -ErrorAction SilentlyContinue
            $aside = "$target.old-" + [Guid]::NewGuid().ToString('N')
            try {
                Copy-Item -LiteralPath (Join-Path $fresh $file) -Destination "$target.new" -Force
                # A running executable can be renamed but not overwritten.
                if (Test-Path -LiteralPath $target) { Move-Item -LiteralPath $target -Destination $aside }
                Move-Item -LiteralPath "$target.new" -Destination $target
            }
            finally {
                # Also after Ctrl-C: the old one comes back, and nothing half-written stays.
                Remove-Item -LiteralPath "$target.new" -Force -ErrorAction SilentlyContinue
                if ((Test-Path -LiteralPath $aside) -and -not (Test-Path -LiteralPath $target)) {
                    Move-Item -LiteralPath $aside -Destination $target
                }
            }
            Remove-Item -LiteralPath $aside -Force -ErrorAction SilentlyContinue
        }
        $executable = Join-Path $folder 'aegis.exe'
        & $executable install path
        if ($LASTEXITCODE -ne 0) { throw "aegis: $executable is installed, but could not be put into your Path" }
        Write-Host "aegis $version is installed: $executable"
        Write-Host 'Next, in a new window, to make this machine a host: aegis edge enroll TOKEN'
    }
    finally {
        Remove-Item -LiteralPath $scratch -Recurse -Force -ErrorAction SilentlyContinue
    }
}

Install-Aegis
