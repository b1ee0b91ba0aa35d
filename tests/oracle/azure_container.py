#!/usr/bin/env python3
"""Makes the container `container` in an Azurite server, with its well-known development account."""
import base64, email.utils, hashlib, hmac, sys, urllib.request

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

url = sys.argv[1] + "/container?restype=container"
date = email.utils.formatdate(usegmt=True)
headers = f"x-ms-date:{date}\nx-ms-version:2021-08-06\n"
resource = f"/{ACCOUNT}/{ACCOUNT}/container\nrestype:container"
text = "PUT" + "\n" * 12 + headers + resource
signature = base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
request = urllib.request.Request(url, method="PUT", headers={
    "x-ms-date": date, "x-ms-version": "2021-08-06", "Content-Length": "0",
    "Authorization": f"SharedKey {ACCOUNT}:{signature}"})
urllib.request.urlopen(request, timeout=30)
