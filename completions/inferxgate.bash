# Completion of inferxgate for bash. Written by: inferxgate --show-completion bash
# To use it: source this file from ~/.bashrc, or put it into /etc/bash_completion.d

_inferxgate() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} path='' words='' index=1 item
    COMPREPLY=()

    # bash takes --name=value apart at the sign
    if [[ $word == = ]]; then
        word=''
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi

    # Which command the words so far name
    while ((index < COMP_CWORD)); do
        item=${COMP_WORDS[index]}
        ((index++))
        case $item in
            --budget | --budget-period | --by | --config | --expires | --host | --key | --log-format | --log-level | --model | --models | --name | --parallel | --port | --provider | --role | --rpm | --show-completion | --since | --system | --tpm | --update-from | --url | --user | --username | --workers | -m | -s)
                [[ ${COMP_WORDS[index]} == = ]] && ((index++))
                ((index++))
                continue
                ;;
        esac
        case $path:$item in
            :serve) path=serve ;;
            :keys) path=keys ;;
            :users) path=users ;;
            :models) path=models ;;
            :stats) path=stats ;;
            :chat) path=chat ;;
            :config) path=config ;;
            keys:create) path=keys/create ;;
            keys:list) path=keys/list ;;
            keys:show) path=keys/show ;;
            keys:update) path=keys/update ;;
            keys:revoke) path=keys/revoke ;;
            keys:rotate) path=keys/rotate ;;
            users:create) path=users/create ;;
            users:list) path=users/list ;;
            users:show) path=users/show ;;
            users:update) path=users/update ;;
            users:disable) path=users/disable ;;
            users:enable) path=users/enable ;;
            users:passwd) path=users/passwd ;;
            users:role) path=users/role ;;
            users:delete) path=users/delete ;;
            models:prices) path=models/prices ;;
            models:refresh) path=models/refresh ;;
            models:list) path=models/list ;;
            models:show) path=models/show ;;
            stats:verify) path=stats/verify ;;
            config:show) path=config/show ;;
            config:path) path=config/path ;;
            config:check) path=config/check ;;
            config:init) path=config/init ;;
        esac
    done

    case $path in
        '') words='serve keys users models stats chat config --config --version -V --show-completion --help -h' ;;
        'serve') words='--host --port --workers --log-level --log-format --config --help -h' ;;
        'keys') words='create list show update revoke rotate --help -h' ;;
        'keys/create') words='--name --user --rpm --tpm --parallel --budget --budget-period --models --expires --json --config --help -h' ;;
        'keys/list') words='--all --user --json --config --help -h' ;;
        'keys/show') words='--json --config --help -h' ;;
        'keys/update') words='--name --rpm --tpm --parallel --budget --budget-period --models --expires --block --unblock --json --config --help -h' ;;
        'keys/revoke') words='--json --config --help -h' ;;
        'keys/rotate') words='--json --config --help -h' ;;
        'users') words='create list show update disable enable passwd role delete --help -h' ;;
        'users/create') words='--role --username --password-stdin --json --config --help -h' ;;
        'users/list') words='--json --config --help -h' ;;
        'users/show') words='--json --config --help -h' ;;
        'users/update') words='--rpm --tpm --budget --budget-period --json --config --help -h' ;;
        'users/disable') words='--force --json --config --help -h' ;;
        'users/enable') words='--json --config --help -h' ;;
        'users/passwd') words='--password-stdin --json --config --help -h' ;;
        'users/role') words='--force --json --config --help -h' ;;
        'users/delete') words='--yes --force --json --config --help -h' ;;
        'models') words='prices refresh list show --help -h' ;;
        'models/prices') words='--update-from --reset --json --csv --config --help -h' ;;
        'models/refresh') words='--provider --json --config --help -h' ;;
        'models/list') words='--provider --json --config --help -h' ;;
        'models/show') words='--json --config --help -h' ;;
        'stats') words='verify --since --by --json --csv --config --help -h' ;;
        'stats/verify') words='--json --config --help -h' ;;
        'chat') words='--model -m --system -s --no-stream --explain --json --url --key --config --help -h' ;;
        'config') words='show path check init --help -h' ;;
        'config/show') words='--config --json --help -h' ;;
        'config/path') words='--config --json --help -h' ;;
        'config/check') words='--config --json --help -h' ;;
        'config/init') words='--config --force --json --help -h' ;;
    esac
    case $before in
        --config | --update-from)
            # bash 3 has no compopt, and then offers nothing
            compopt -o default 2>/dev/null
            return
            ;;
        --budget | --budget-period | --by | --config | --expires | --host | --key | --log-format | --log-level | --model | --models | --name | --parallel | --port | --provider | --role | --rpm | --show-completion | --since | --system | --tpm | --update-from | --url | --user | --username | --workers | -m | -s) words='' ;;
    esac
    case $path:$before in
        :--show-completion) words='bash zsh fish' ;;
        serve:--log-level) words='critical error warning info debug' ;;
        serve:--log-format) words='text json' ;;
        keys/create:--budget-period) words='total day week month' ;;
        keys/update:--budget-period) words='total day week month' ;;
        users/create:--role) words='admin user' ;;
        users/update:--budget-period) words='total day week month' ;;
        stats:--by) words='model provider key user day status' ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}

complete -F _inferxgate inferxgate
