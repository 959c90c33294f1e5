"""What the HTTP interface says of itself: an OpenAPI document, written by hand.

``operations`` and ``protocol_operations`` have a route each; ``schemas`` and ``problems`` what they share;
``document`` puts it together. Tests hold every example against what the application really answers.
"""
