#!/bin/sh
# keep_errors.sh FILE COMMAND ...  runs a command as it is, and keeps in FILE what it writes to standard error.
# Its output, its errors as they come, and its exit status are those of the command.
file=$1
shift
exec 3>&1
status=$(
    {
        { "$@" 2>&1 >&3 3>&- 4>&-; echo $? >&4; } | tee "$file" >&2 3>&- 4>&-
    } 4>&1
)
exit "$status"
