# shellcheck shell=bash
# Completion of pulse-cancelctl for bash; tests/integration/test_ctl_docs.py compares it with --help.

_pulse_cancelctl() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
  local commands="cancel status list results watch top stats metrics hold release flush retry withdraw reload ping"
  local common="-s --socket -j --json -h --help -V --version"
  local outcomes="cancelled too_late not_found unauthorized forbidden rejected failed expired invalid withdrawn"

  # The command, if there is one before the cursor: the first word that is neither an option nor the
  # argument of one.
  local command="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      -s | --socket) ((i++)) ;;
      -*) ;;
      *)
        command=${COMP_WORDS[i]}
        break ;;
    esac
  done

  local options=$common words=""
  COMPREPLY=()
  case $command:$prev in
    *:-s | *:--socket | cancel:-f | cancel:--file | results:-f | results:--file)
      compopt -o filenames 2>/dev/null || true # outside a completion it fails
      mapfile -t COMPREPLY < <(compgen -f -- "$cur")
      return ;;
    list:-t | list:--state) words="queued in_flight waiting done" ;;
    list:-o | list:--outcome | results:-o | results:--outcome) words=$outcomes ;;
    # What ended so can't be retried.
    retry:-o | retry:--outcome) words="not_found unauthorized forbidden rejected failed expired withdrawn" ;;
    results:-S | results:--since | results:-U | results:--until) words="today yesterday now 1h 1d 7d" ;;
    cancel:-d | cancel:--deadline | cancel:-r | cancel:--request-id | cancel:--reconnect) return ;;
    status:-r | status:--request-id | retry:-r | retry:--request-id | withdraw:-r | withdraw:--request-id) return ;;
    list:-l | list:--limit | list:-a | list:--after | results:-n | results:--lines) return ;;
  esac
  if [ -n "$words" ]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    return
  fi

  case $command in
    "")
      [[ $cur == -* ]] || options=$commands ;;
    cancel) options+=" -f --file -n --no-wait -d --deadline -r --request-id --reconnect" ;;
    status | withdraw) options+=" -r --request-id" ;;
    list) options+=" -t --state -o --outcome -l --limit -a --after" ;;
    results) options+=" -o --outcome -S --since -U --until -n --lines -f --file" ;;
    retry) options+=" -r --request-id -o --outcome" ;;
  esac
  # Jobs are not known here: a word that is no option is left to its writer.
  if [ -z "$command" ] || [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
  fi
}

complete -F _pulse_cancelctl pulse-cancelctl
