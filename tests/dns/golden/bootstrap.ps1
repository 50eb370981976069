$said = ConvertFrom-Json (@($input) -join "`n"); & ([ScriptBlock]::Create($said.program)) $said.request
