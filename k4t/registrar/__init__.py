"""Runs on gateway and DNS hosts: keeps every cluster's document and renders their union for the vendor.

Standard library only, Python >= 3.8; imports nothing of k4t. Of this package k4t itself imports only `document`.
"""
